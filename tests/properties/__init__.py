"""Properties that hold for any input, looked for by Hypothesis.

`make test` draws the same few inputs every time. Many more, and others every time:
`pytest tests/properties --hypothesis-profile long`.
"""
