"""Opens a page over HTTP in a headless browser and waits for what it sends."""

import http.server
import json
import shutil
import subprocess
import tempfile
import threading

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def browser():
    """The path of a browser, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def answer_of(browser, folder, page, timeout=120, options=()):
    """Serves a folder from the loopback, opens `page` of it, and returns the JSON that it POSTs to /answer."""
    answers, arrived = [], threading.Event()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def do_POST(self):
            answers.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            arrived.set()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, tempfile.TemporaryDirectory() as profile:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command += [f"--user-data-dir={profile}", "--remote-debugging-port=0", *options]
        process = subprocess.Popen(
            [*command, f"http://127.0.0.1:{server.server_port}/{page}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert arrived.wait(timeout), f"no answer of {page} within {timeout} s"
        finally:
            process.kill()
            process.wait()
            server.shutdown()
    return answers[0]


MEASURE = """<body><script>
(async () => {
    const answer = [];
    for (const width of WIDTHS) {
        const frame = document.body.appendChild(document.createElement("iframe"));
        frame.width = width; frame.height = 800;
        await new Promise(done => { frame.onload = done; frame.src = PAGE; });
        answer.push(frame.contentDocument.documentElement.scrollWidth);
    }
    fetch("/answer", {method: "POST", body: JSON.stringify(answer)});
})();
</script>"""


def scroll_widths(browser, folder, page, widths):
    """The width that `page` of a folder takes in windows of each of the `widths`, in CSS pixels.

    The page is in a frame, because Chromium's windows are at least 500 pixels wide.
    """
    text = MEASURE.replace("WIDTHS", json.dumps(widths)).replace("PAGE", json.dumps(page))
    (folder / "measure.htm").write_text(text)
    return answer_of(browser, folder, "measure.htm")
