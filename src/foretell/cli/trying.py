"""First steps to show after a start, for both engines."""

#: At `url`, in development.
TRY = """
Try it:

  TOKEN=$(curl -s {url}/token -d username=test -d password=test | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')
  curl -s {url}/predictions/predict -H "Authorization: Bearer $TOKEN" -H 'Prefer: wait=10' \\
    -H 'Content-Type: application/json' -d '{{"model": "flight-delay", "input":
    {{"carrier": "AA", "departure_time": "09:30", "distance_miles": 550, "weather_code": 3}}}}'
"""
