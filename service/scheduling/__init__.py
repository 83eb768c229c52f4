"""Scheduling: batches, owner threads, pools, memory budgets."""
