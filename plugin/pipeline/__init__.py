"""The work done ahead of serving: features from interactions, a catalogue from items, a ranker from both."""
