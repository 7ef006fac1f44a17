"""Code that agents write, really run: the contract of a runner, the tool, and the two runners that come along.

What comes in: code, step after step. What goes out: output while it runs, pictures, tables, figures and files, or a
typed failure. The default, `JupyterRunner` in `agentstream.agent.code.jupyter`, needs Linux, bubblewrap and the extra
`exec`; `probe` says whether it works here, and `sandbox()` is it, or an error that says what is missing.
"""

from agentstream.agent.code.bubblewrap import SandboxReport, probe
from agentstream.agent.code.contract import (
    CodeFailed,
    CodeResult,
    CodeRunner,
    CodeSession,
    Limits,
    OutputCallback,
    Reason,
    RichOutput,
)
from agentstream.agent.code.default import sandbox
from agentstream.agent.code.tool import code_tool, keep_outputs
from agentstream.agent.code.unsafe import UnsafeSubprocess

__all__ = (
    "CodeFailed",
    "CodeResult",
    "CodeRunner",
    "CodeSession",
    "Limits",
    "OutputCallback",
    "Reason",
    "RichOutput",
    "SandboxReport",
    "UnsafeSubprocess",
    "code_tool",
    "keep_outputs",
    "probe",
    "sandbox",
)
