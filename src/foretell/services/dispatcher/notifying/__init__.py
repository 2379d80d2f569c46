"""Sends what is to be told: to webhooks, and to Telegram by the bot."""
