"""agentstream: teams of agents with one ordered, resumable stream."""
