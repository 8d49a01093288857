"""Who may do what with whose data: keys, rules of owners, approvals of plans, and the audit log."""
