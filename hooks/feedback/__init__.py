"""Feedback: the durable log of decisions and rewards, and the learner that reads it."""
