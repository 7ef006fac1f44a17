"""A data analyst in three roles, working on a CSV file: `team.team`.

What comes in: a question and a file. What goes out: an answer that was computed from the file and checked by a second
computation. It does not know where the file came from, or who reads the stream.
"""
