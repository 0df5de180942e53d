"""The price list: routes and prices in force, what a call costs by them, and where prices come from."""
