"""Container engines behind one interface; `app.py` alone chooses among them."""
