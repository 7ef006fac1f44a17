"""When to try again, whom to ask, and when to leave somebody alone: machines without input or output.

What comes in: outcomes, times, randomness. What goes out: decisions. It does not know what is called: a pool of model
endpoints uses these machines, and any other long-lived connection may.
"""

from agentstream.policy.balance import STRATEGIES, Balancer, Candidate, Strategy
from agentstream.policy.breaker import Breaker, BreakerOptions, BreakerState, Ticket
from agentstream.policy.budget import Exhausted, Ledger, Reservation, WaitForOthers
from agentstream.policy.health import Decayed, Ewma, Health, PeakEwma, Window
from agentstream.policy.retry import MAX_WAIT_S, Fault, Reconnect, Retry, backoff, fault_of, wait_after, worth_another
from agentstream.policy.throttle import Allowance, RetryBudget

__all__ = (
    "MAX_WAIT_S",
    "STRATEGIES",
    "Allowance",
    "Balancer",
    "Breaker",
    "BreakerOptions",
    "BreakerState",
    "Candidate",
    "Decayed",
    "Ewma",
    "Exhausted",
    "Fault",
    "Health",
    "Ledger",
    "PeakEwma",
    "Reconnect",
    "Reservation",
    "Retry",
    "RetryBudget",
    "Strategy",
    "Ticket",
    "WaitForOthers",
    "Window",
    "backoff",
    "fault_of",
    "wait_after",
    "worth_another",
)
