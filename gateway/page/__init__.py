"""The gateway's page: `desk` answers questions with the gateway's rights, `web` speaks HTTP and has none (ADR 0025)."""
