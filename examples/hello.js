// Change the greeting below and save: a moment later this routine has a new version.
const greeting = "Hello from the edge";

addEventListener("fetch", (event) => {
  event.respondWith(greet(event.request));
});

async function greet(request) {
  const { pathname, searchParams } = new URL(request.url);
  if (pathname === "/healthz") {
    return new Response("ok\n");
  }
  const name = searchParams.get("name") ?? "whoever you are";
  return new Response(`${greeting}, ${name}!\n`, {
    headers: { "content-type": "text/plain; charset=utf-8" },
  });
}
