"""Where records are shown while a run goes on."""
