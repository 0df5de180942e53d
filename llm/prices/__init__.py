"""The price list: routes and prices in force, what a call costs, and where prices come from."""
