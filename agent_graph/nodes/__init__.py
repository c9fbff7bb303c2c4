"""The nodes of the loop: each reads the state, asks a decision, touches one port and returns an update. One file a node."""
