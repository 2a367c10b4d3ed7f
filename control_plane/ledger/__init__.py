"""The only door for agents' writes: claim and commit, checked against the fence."""
