"""What users and third parties test with; nothing of agentstream itself imports it.

What comes in: the parts under test. What goes out: scripted models, a local server that speaks as model providers do,
recordings, an in-process HTTP transport and the checks of a store's contract (`agentstream.testing.store_checks`). It
does not know any test framework.
"""

from agentstream.testing.fake_provider import FakeAnswer, FakeProvider, FakeRequest, Fault, ProviderItem
from agentstream.testing.recording import Recording, record
from agentstream.testing.scripted import Broken, ScriptedModel, ScriptItem
from agentstream.testing.transport import StreamingTransport

__all__ = (
    "Broken",
    "FakeAnswer",
    "FakeProvider",
    "FakeRequest",
    "Fault",
    "ProviderItem",
    "Recording",
    "ScriptItem",
    "ScriptedModel",
    "StreamingTransport",
    "record",
)
