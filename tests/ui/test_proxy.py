"""The app under a sub-path, behind nginx with the configuration that is shipped: uploads and downloads included."""

import shutil
import sys
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from tests.browser import free_port, running

SHIPPED = Path(__file__).parents[2] / "deploy" / "nginx.conf"
PLACES = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@pytest.mark.skipif(shutil.which("nginx") is None, reason="no nginx is installed: apt-get install nginx-light")
@pytest.mark.skipif(sys.platform == "win32", reason="nginx is started as on Linux")
def test_a_sub_path_behind_nginx_takes_uploads_and_gives_downloads(tmp_path: Path, photo: Path) -> None:
    app_port, port = free_port(), free_port()
    (tmp_path / "mofme.conf").write_text(SHIPPED.read_text().replace("127.0.0.1:7860", f"127.0.0.1:{app_port}"))
    places = "".join(f"{name}_temp_path {tmp_path / name}; " for name in PLACES)
    server = f"server {{ listen 127.0.0.1:{port}; include {tmp_path / 'mofme.conf'}; }}"
    configuration = (
        f"pid {tmp_path / 'pid'}; error_log stderr; events {{}} http {{ access_log off; {places} {server} }}"
    )
    (tmp_path / "nginx.conf").write_text(configuration)
    command = [sys.executable, "-m", "mofme", "app", "--port", str(app_port), "--root-path", "/mofme"]
    proxy = ["nginx", "-g", "daemon off;", "-c", str(tmp_path / "nginx.conf")]
    url = f"http://127.0.0.1:{port}/mofme/"
    with running(command, f"http://127.0.0.1:{app_port}/health"), running(proxy, url):
        assert httpx.get(f"{url}health").json() == {"status": "ok"}
        assert httpx.get(f"{url}metrics").status_code == 403
        assert f"http://127.0.0.1:{port}/mofme" in httpx.get(url, timeout=90).text
        client = Client(url, verbose=False, download_files=tmp_path)
        restored, _ = client.predict(handle_file(photo), api_name="/restore")
        client.close()
        with Image.open(restored) as image:
            assert image.size == (64, 96)
