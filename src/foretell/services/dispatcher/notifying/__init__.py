"""Sends notifications to webhooks, and to Telegram through the bot."""
