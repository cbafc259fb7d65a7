"""One module per library: its contestants, each with a few settings; imported only where the library is.

The first setting of each is what the library does unasked. The others are there to be chosen from, on worlds that
nobody is judged by (see `benchmarks.regret.tournament`).
"""
