"""A typed client of the service, free of FastAPI and of the rest of the service.

    from service.client.sync_client import Client

    with Client("http://127.0.0.1:8000", key) as client:
        png = client.segment_mask(Path("photo.jpg").read_bytes())
        for run in client.list_runs():
            print(run.id, run.status)

`service.client.async_client.AsyncClient` has the same methods, to be awaited. `api.py` lists them.
"""
