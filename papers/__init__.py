"""Each paper's claims as a reproduction that runs on real data and says which claims held."""
