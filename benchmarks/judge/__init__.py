"""False alarms and misses of the canary's judge."""
