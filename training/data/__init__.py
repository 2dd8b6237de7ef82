"""Pictures and what is made of them: LR, degraded LR, patches."""
