"""How the references of the service's own movements of credits begin, by which readers know what they are."""

#: A refund of a prediction, followed by its id.
REFUND = "refund:"
#: A payment in Telegram Stars and its refund, each followed by Telegram's id of the charge.
TELEGRAM, TELEGRAM_REFUND = "telegram:", "telegram-refund:"
