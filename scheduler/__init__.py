"""The calendar: retry tiers, delayed tasks, cron. Nothing is in it yet."""
