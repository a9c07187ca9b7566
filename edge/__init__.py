"""Speech emotion recognition on the device, and the definitions that training shares with it."""
