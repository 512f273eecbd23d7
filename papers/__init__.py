"""Each paper's claims as a reproduction that runs on real data and reports which claims were confirmed."""
