"""Beat's side: each tick is sent once, and ticks neither overlap nor pile up."""
