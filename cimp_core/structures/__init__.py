"""Which crystal is this? Simulated libraries of crystals, and the search for the one that a micrograph shows."""
