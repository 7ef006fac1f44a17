"""The web room: a runtime over HTTP.

What comes in: a runtime, and HTTP requests. What goes out: the routes of runs as an ASGI application, settings, and (in
`agentstream.web.server`, behind the extra `server`) a process that serves them. It does not know agents, models or
dialects; there is no authentication yet, so whoever reaches the port may start and read every run of the owner "".
"""

from agentstream.web.application import app
from agentstream.web.middleware import abortable
from agentstream.web.options import WebOptions
from agentstream.web.settings import Settings, load_settings

__all__ = ("Settings", "WebOptions", "abortable", "app", "load_settings")
