"""Who runs when: batches, owner threads, pools, memory budgets."""
