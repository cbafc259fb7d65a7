"""The whole request, beside what a user would otherwise write and beside what the hardware allows.

    python -m benchmarks.request_path [--items 100000] [--online-store redis] [--http] [--quick] [--json PATH]

- `world.py`: the data: clustered vectors, users with histories, features, a LightGBM model; made anew anywhere from
  a seed, and kept under `build/`.
- `repository.py`: the Feast repository over it, and the filling of its online store.
- `naive.py`: the naive peer, as a good engineer would write it from the tutorials, in process and as a FastAPI app.
- `installation.py`: Explorank on the same data, and the time of its steps.
- `floors.py`: what each step costs at the least: the same work without anything around it.
- `nearest.py`: FAISS flat and IVF, as the peer and the floors use them.
- `over_http.py`, `redis_server.py`: servers in processes of their own, and a client that costs little.
- `table.py`: what is told of it. `growth.py`: the same at many sizes, as tables and a plot.
"""
