"""Answers: what a run is over HTTP, without any framework.

What comes in: a run in a log, and an ASGI request. What goes out: a stream of server-sent events, a JSON document, or a
problem document. It does not know routes, owners, or how runs come about.
"""

from agentstream.answer.asgi import ASGIApp, Message, Receive, Scope, Send, header, send_whole
from agentstream.answer.connection import AnswerOptions
from agentstream.answer.cut import Cut, expect_cut, mark_cut
from agentstream.answer.drain import DrainSwitch
from agentstream.answer.events import EventStreamAnswer
from agentstream.answer.frames import FrameCache
from agentstream.answer.frameworks import Request, Response, as_response
from agentstream.answer.problem import Problem, ProblemAnswer, problem_of
from agentstream.answer.request import Asked, read_request

__all__ = (
    "ASGIApp",
    "AnswerOptions",
    "Asked",
    "Cut",
    "DrainSwitch",
    "EventStreamAnswer",
    "FrameCache",
    "Message",
    "Problem",
    "ProblemAnswer",
    "Receive",
    "Request",
    "Response",
    "Scope",
    "Send",
    "as_response",
    "expect_cut",
    "header",
    "mark_cut",
    "problem_of",
    "read_request",
    "send_whole",
)
