"""What a call comes to: sizes, padding, envelopes and the linear maps, in integers and numpy."""
