//! The shapes in which routines come: each parses, and is warned of only where the service is documented to run it
//! otherwise. What is cut off is refused wherever it is cut.

use std::path::Path;

use crate::common::disk::NEVER;
use crate::common::{Bed, code};
use er_dev::config::Kind;
use er_dev::watch::syntax::{Caution, check};

/// What there is to say of code, in a word each.
fn said(source: &str, service: Kind) -> Vec<&'static str> {
    let cautions = check(source, Path::new("/p/index.js"), Some(service));
    let cautions = cautions.unwrap_or_else(|error| panic!("{error}: {source:.400}"));
    cautions.iter().map(word).collect()
}

fn word(caution: &Caution) -> &'static str {
    let words = [
        ("ES module", "module"),
        ("IP address", "address"),
        ("no fetch handler", "handler"),
    ];
    let of = words
        .iter()
        .find(|(part, _)| caution.message.contains(part));
    of.unwrap_or_else(|| panic!("{caution:?}")).1
}

/// A megabyte of functions before the handler.
fn large() -> String {
    let functions = (0..9_000).map(|n| {
        format!(
            "function step{n}(a, b = {{ deep: [{n}, `x${{a}}`] }}) {{\n  if (/^[a-z]{{{n}}}$/u.test(a)) return b?.deep ?? {n};\n}}\n"
        )
    });
    let text: String = functions.collect();
    assert!(text.len() > 1_000_000, "{}", text.len());
    text + "addEventListener('fetch', (event) => event.respondWith(step0(event.request)));\n"
}

/// A name, the code, and what is said of it for DCDN and for ESA.
type Shape = (
    &'static str,
    String,
    &'static [&'static str],
    &'static [&'static str],
);

/// What runs on DCDN as it is.
fn scripts() -> Vec<Shape> {
    let texts: [(&'static str, &str); 22] = [
        (
            "an arrow function",
            "addEventListener('fetch', (event) => event.respondWith(new Response('hi')));",
        ),
        (
            "an async function in the call",
            "addEventListener(\"fetch\", async function (event) {\n  event.respondWith(answer(event.request));\n});\nasync function answer(request) { return fetch(request); }",
        ),
        (
            "a named function",
            "'use strict';\nfunction onFetch(event) { event.respondWith(new Response(null, { status: 204 })); }\naddEventListener(`fetch`, onFetch);",
        ),
        (
            "the global object by its names",
            "self.addEventListener('fetch', h); globalThis.addEventListener('fetch', h); function h() {}",
        ),
        (
            "an optional call",
            "globalThis?.addEventListener?.('fetch', (e) => e.respondWith(fetch(e.request)));",
        ),
        (
            "an alias of the function",
            "const on = addEventListener; on('fetch', (e) => e.respondWith(go(e))); function go() {}",
        ),
        (
            "an alias of the global object, minified",
            "!function(){var e=self,t=function(e){return new Response(e.url)};e.addEventListener(\"fetch\",(function(e){e.respondWith(t(e.request))}))}();",
        ),
        (
            "a name that is put together",
            "const g = self; g['add' + 'EventListener']('fetch', (e) => e.respondWith(new Response()));",
        ),
        (
            "an event in a variable",
            "var k=\"fe\"+\"tch\";addEventListener(k,e=>e.respondWith(new Response(k)))",
        ),
        (
            "a handler that is bound",
            "class App { constructor() { this.n = 0; } handle(e) { this.n += 1; e.respondWith(new Response(`${this.n}`)); } static #p = 1; }\nconst app = new App();\naddEventListener('fetch', app.handle.bind(app));",
        ),
        (
            "webpack",
            "/******/ (() => { // webpackBootstrap\n/******/ var __webpack_modules__ = ({\n/***/ 42: ((module, __unused, __webpack_require__) => { module.exports = { answer: () => new Response('hi') }; })\n/******/ });\nvar cache = {};\nfunction __webpack_require__(id) { var hit = cache[id]; if (hit !== undefined) return hit.exports; var module = cache[id] = { exports: {} }; __webpack_modules__[id](module, module.exports, __webpack_require__); return module.exports; }\nvar lib = __webpack_require__(42);\naddEventListener('fetch', (event) => event.respondWith(lib.answer()));\n/******/ })();",
        ),
        (
            "webpack for development",
            "var m = { './src/index.js': () => { eval(\"addEventListener('fetch', e => e.respondWith(new Response('hi')))\"); } }; m['./src/index.js']();",
        ),
        (
            "rollup, iife",
            "(function () {\n\t'use strict';\n\n\tconst greet = (name) => `hello ${name}`;\n\n\taddEventListener('fetch', (event) => {\n\t\tevent.respondWith(new Response(greet('x')));\n\t});\n\n})();\n",
        ),
        (
            "esbuild, iife, minified",
            "\"use strict\";(()=>{var n=Object.defineProperty;var o=(t,e)=>n(t,\"name\",{value:e,configurable:!0});async function r(t){return new Response(await t.text(),{headers:{\"x-a\":\"1\"}})}o(r,\"r\");addEventListener(\"fetch\",t=>t.respondWith(r(t.request)));})();",
        ),
        (
            "umd",
            "(function (root, factory) { typeof exports === 'object' && typeof module !== 'undefined' ? factory(exports) : factory(root.app = {}); })(this, function (exports) { exports.x = 1; });",
        ),
        (
            "tsc, es5 helpers",
            "\"use strict\";\nvar __awaiter = (this && this.__awaiter) || function (thisArg, f) { return new Promise(function (ok) { ok(f.call(thisArg)); }); };\naddEventListener(\"fetch\", function (event) { event.respondWith(__awaiter(void 0, function () { return new Response(\"x\"); })); });\n//# sourceMappingURL=index.js.map",
        ),
        (
            "an inline source map",
            "addEventListener('fetch', (e) => e.respondWith(new Response('m')));\n//# sourceMappingURL=data:application/json;base64,eyJ2ZXJzaW9uIjozLCJzb3VyY2VzIjpbXSwibWFwcGluZ3MiOiIifQ==",
        ),
        (
            "a hashbang and carriage returns",
            "#!/usr/bin/env node\r\n// @ts-check\r\naddEventListener('fetch', (e) => {\r\n  e.respondWith(new Response('a\\\r\nb'));\r\n});\r\n",
        ),
        (
            "a byte order mark and other scripts",
            "\u{feff}const größe = '你好 \u{1f600}', \u{43f} = /\\p{L}+/u;\naddEventListener('fetch', (e) => e.respondWith(new Response(größe + \u{43f}.source)));",
        ),
        (
            "data in the code",
            "const pages = JSON.parse('{\"a\":{\"b\":[1,2,{\"c\":\"\\\\u2028\"}]}}'), table = {\"x-y\": [null, true, 1e3,], 7: {}, };\naddEventListener('fetch', (e) => e.respondWith(new Response(JSON.stringify([pages, table]))));",
        ),
        (
            "many regular expressions",
            "const r = [/[/\\]]+/g, /(?<year>\\d{4})-\\k<year>/, /a\\/b(?=c)/iu, /[\\p{Lu}--[A-Z]]/v, /x{2,}?/s];\nconst half = 4 / 2 / r.length;\naddEventListener('fetch', (e) => e.respondWith(new Response(r.map((it) => it.source).join(half))));",
        ),
        (
            "onfetch",
            "self.onfetch = (event) => event.respondWith(new Response('hi'));",
        ),
    ];
    let mut shapes: Vec<Shape> = texts
        .into_iter()
        .map(|(name, text)| (name, text.to_owned(), &[][..], &[][..]))
        .collect();
    shapes.push(("a megabyte", large(), &[], &[]));
    shapes
}

/// What ESA runs as it is.
fn modules() -> Vec<Shape> {
    [
        ("an object with a method", "export default { async fetch(request, env) { return new Response('hi'); } };"),
        ("an object with a function", "const go = (request) => new Response(request.url);\nexport default { 'fetch': go, scheduled() {} };"),
        ("an object with the rest of another", "const base = { fetch() {} };\nexport default { ...base, x: 1 };"),
        ("an async function", "export default async function handle(request) { return new Response('hi'); }"),
        ("a class", "export default class { fetch(request) { return new Response(request.url); } }"),
        ("esbuild, esm", "var index_default = {\n  async fetch(request) {\n    return new Response(\"hi\");\n  }\n};\nexport {\n  index_default as default\n};\n//# sourceMappingURL=index.js.map"),
        ("imports", "import { answer } from './answer.js';\nimport data from './data.json' with { type: 'json' };\nanswer(data);"),
        ("one export of another", "export { default } from './worker.js';\nexport * from './more.js';"),
        ("an await outside of functions", "const settings = await Promise.resolve({ ok: true });\naddEventListener('fetch', (e) => e.respondWith(Response.json(settings)));"),
        ("what it is a module by", "const here = new URL(import.meta.url);\naddEventListener('fetch', (e) => e.respondWith(new Response(here.href)));"),
    ]
    .into_iter()
    .map(|(name, text)| (name, text.to_owned(), &["module"][..], &[][..]))
    .collect()
}

/// What is warned of on either service, or on DCDN for another reason.
fn odd() -> Vec<Shape> {
    let none: &[&str] = &["handler"];
    [
        ("nothing but a comment", "// addEventListener('fetch', later)", none, none),
        ("a library", "'use strict';\nclass Cache { get(k) { return this[k]; } }\nself.cache = new Cache();", none, none),
        ("a mistyped function", "addEventListner('fetch', (e) => e.respondWith(new Response('hi')));", none, none),
        ("a mistyped event", "addEventListener('fecth', (e) => e.respondWith(new Response('hi')));", none, none),
        ("tsc, commonjs", "\"use strict\";\nObject.defineProperty(exports, \"__esModule\", { value: true });\nexports.default = { async fetch() { return new Response('hi'); } };", none, none),
        ("a module without a default", "export function fetch() {}", &["module", "handler"], none),
        ("a default without a handler", "export default { scheduled() {} };", &["module", "handler"], none),
        ("a fetch from an address", "addEventListener('fetch', (e) => e.respondWith(fetch('http://203.0.113.7:8080/a')));", &["address"], &[]),
        ("a fetch from an address in a template", "addEventListener('fetch', (e) => e.respondWith(fetch(`https://[2001:db8::1]/${e.request.url}`)));", &["address"], &[]),
        ("a fetch of its own", "const fetch = (x) => x;\naddEventListener('fetch', (e) => e.respondWith(fetch('http://203.0.113.7/')));", &[], &[]),
        ("a fetch from a name of digits", "addEventListener('fetch', (e) => e.respondWith(fetch('https://203.0.113.7.example/')));", &[], &[]),
    ]
    .into_iter()
    .map(|(name, text, dcdn, esa)| (name, text.to_owned(), dcdn, esa))
    .collect()
}

#[test]
fn routines_of_every_shape_parse_and_are_warned_of_where_they_should() {
    for (name, text, dcdn, esa) in [scripts(), modules(), odd()].concat() {
        assert_eq!(said(&text, Kind::Dcdn), dcdn, "{name}: {text:.600}");
        assert_eq!(said(&text, Kind::Esa), esa, "{name}: {text:.600}");
        // An entry may end its lines in either way.
        if !text.contains('\r') {
            let text = text.replace('\n', "\r\n");
            assert_eq!(said(&text, Kind::Dcdn), dcdn, "{name}: {text:.600}");
        }
    }
}

#[test]
fn a_warning_has_the_place_that_it_is_about() {
    let text = "// é\nconst a = 1;\n  export default { fetch() { return fetch('http://203.0.113.7/'); } };\n";
    let cautions = check(text, Path::new("/p/index.js"), Some(Kind::Dcdn)).unwrap();
    let places: Vec<_> = cautions
        .iter()
        .map(|it| it.place.as_ref().map(|at| (at.line, at.column, at.width)))
        .collect();
    assert_eq!(places, [Some((3, 3, 6)), Some((3, 43, 21))]);
    let cautions = check("1", Path::new("/p/index.js"), Some(Kind::Dcdn)).unwrap();
    assert_eq!(cautions[0].place, None);
    // Nobody asks.
    assert_eq!(check("1", Path::new("/p/index.js"), None), Ok(Vec::new()));
}

/// Code of many kinds of tokens whose first bracket is closed by its last one, so that nothing that is cut off between
/// the two is a program.
fn wrapped() -> [String; 2] {
    let body = "
  'use strict';
  // A comment with an \"odd quote and a { bracket.
  const table = { a: [1, 2.5e3, 0x1f, 10n], 'b-c': null, [`d${1 + 1}`]: /[/\\]{]+(?<y>\\d{4})/giu };
  /* A longer
     one. */
  class Größe extends Map { #n = 0; static { this.m = 1; } get n() { return this.#n ?? -1; } async *walk() { yield* []; } }
  async function answer(request, { deep: [first = 'x', ...rest] = [] } = {}) {
    label: for (const [name, value] of new URL(request.url).searchParams) {
      switch (name) { case 'a': continue label; default: break; }
      try { rest.push(value?.length ? !value : ~~first); } catch { delete table.a; } finally { rest.pop(); }
    }
    do { first ||= '\\u{1f600} 你好 \\\n'; } while (!first);
    return new Response(`${first} ${`inner ${rest.length}`}`, { status: rest.length > 3 ? 500 : 200 });
  }
  if (typeof Größe !== 'undefined') addEventListener('fetch', (event) => event.respondWith(answer(event.request)));
";
    [
        format!("(function () {{{body}}})();"),
        format!("export default ({{ fetch() {{{body}}} }});"),
    ]
}

/// So many places to cut a text at, evenly apart, all behind its first bracket and before its last one.
fn cuts(text: &str, count: usize) -> Vec<usize> {
    let (first, last) = (text.find('(').unwrap(), text.rfind("})").unwrap());
    let places: Vec<usize> = (first + 1..=last)
        .filter(|&at| text.is_char_boundary(at))
        .collect();
    assert!(places.len() > count, "{} places", places.len());
    (0..count)
        .map(|n| places[n * places.len() / count])
        .collect()
}

#[test]
fn code_that_is_cut_at_any_of_five_hundred_places_is_refused() {
    for text in &wrapped() {
        assert!(
            check(text, Path::new("/p/index.js"), None).is_ok(),
            "{text}"
        );
        for cut in cuts(text, 500) {
            let text = &text[..cut];
            let error = check(text, Path::new("/p/index.js"), None);
            let error = error.expect_err(text);
            assert!(
                error.place.line <= text.lines().count() + 1,
                "{text}: {error:?}"
            );
        }
    }
}

#[tokio::test]
async fn five_hundred_files_that_are_cut_off_are_all_refused_by_one_push() {
    let names: Vec<String> = (0..500).map(|n| format!("r{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bed = Bed::new(&names).await;
    let [text, _] = wrapped();
    for (name, cut) in names.iter().zip(cuts(&text, 500)) {
        bed.write(name, &text[..cut]);
    }
    let ended = bed.run(&["push"]).await;
    assert_eq!(ended.code, Some(65), "{}", ended.stderr);
    let errors = ended.of("error");
    assert_eq!(errors.len(), 500);
    for error in errors {
        assert_eq!(error["problem"]["class"], "source", "{error}");
        assert!(error["problem"]["line"].is_u64(), "{error}");
    }
    assert_eq!(bed.asked("UploadRoutineCode"), 0);
}

#[tokio::test]
async fn a_broken_save_leaves_the_newest_good_bytes_where_they_are_and_tells_all_that_is_wrong() {
    let bed = Bed::fenced(NEVER).await;
    let mut watch = bed.watch(&[]).await;
    let good = code("hello", 1);
    bed.write("hello", &good);
    assert_eq!(watch.end_of_edit_of("hello").await["event"], "uploaded");
    bed.write(
        "hello",
        &format!(
            "{good}break;\nlet a;\n\n  let a;\n{}",
            "continue;\n".repeat(6)
        ),
    );
    let error = watch.end_of_edit_of("hello").await;
    assert_eq!(error["event"], "error", "{error}");
    let problem = &error["problem"];
    assert_eq!(
        (&problem["line"], &problem["column"]),
        (&2.into(), &1.into()),
        "{error}"
    );
    let also = problem["also"].as_array().unwrap();
    assert_eq!(also.len(), 4, "{error}");
    assert_eq!(
        (&also[0]["line"], &also[0]["column"]),
        (&5.into(), &7.into()),
        "{error}"
    );
    assert!(also[0]["what"].as_str().unwrap().contains("`a`"), "{error}");
    assert_eq!(problem["unshown"], 3, "{error}");
    bed.fence(&mut watch).await;
    let all = [code("hello", 0), good];
    bed.assert_uploads("hello", &all, "broken");
    assert_eq!(bed.newest("hello"), all[1].as_bytes());
    let (_, status) = bed.status().await;
    assert!(status.to_string().contains("refused"), "{status}");
    watch.stop().await;
}

#[tokio::test]
async fn a_warning_is_told_once_for_each_new_content_that_goes_up() {
    let routines = [
        ("hello", "src/hello.js", ""),
        ("raw", "src/raw.js", "check = false"),
        ("fence", "src/fence.js", ""),
    ];
    let bed = Bed::laid_out(&routines, NEVER).await;
    for name in ["hello", "raw", "fence"] {
        bed.write(name, &code(name, 0));
    }
    let mut watch = bed.watch(&[]).await;
    let modules = ["a", "b"].map(|text| format!("// {text}\nexport default {{ fetch() {{}} }};\n"));
    for (told, text) in modules.iter().enumerate() {
        bed.write("hello", text);
        assert_eq!(watch.end_of_edit_of("hello").await["event"], "uploaded");
        let warning = watch.until("warning").await;
        assert_eq!(warning["routine"], "hello", "{warning}");
        let problem = &warning["problem"];
        assert!(
            problem["what"].as_str().unwrap().contains("ES module"),
            "{warning}"
        );
        assert_eq!(problem["file"], "src/hello.js", "{warning}");
        assert_eq!(
            (&problem["line"], &problem["column"]),
            (&2.into(), &1.into())
        );
        // The same bytes again.
        bed.write("hello", text);
        assert_eq!(watch.end_of_edit_of("hello").await["event"], "unchanged");
        bed.write("raw", text);
        assert_eq!(watch.end_of_edit_of("raw").await["event"], "uploaded");
        bed.fence(&mut watch).await;
        assert_eq!(watch.count("warning", "hello"), told + 1);
        assert_eq!(watch.count("warning", "raw"), 0);
    }
    // Back to what an older version holds.
    bed.write("hello", &modules[0]);
    assert_eq!(watch.end_of_edit_of("hello").await["event"], "reused");
    bed.fence(&mut watch).await;
    assert_eq!(watch.count("warning", "hello"), 2);
    watch.stop().await;
    bed.write("hello", "export {};\n");
    let ended = bed.run(&["push", "hello", "--format", "text"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let warnings = ended.stdout.matches(" Warning  hello  ").count();
    assert_eq!(warnings, 2, "{}", ended.stdout);
    assert!(
        ended
            .stdout
            .contains("src/hello.js:1:1 this is an ES module"),
        "{}",
        ended.stdout
    );
    let ended = bed.run(&["push", "hello"]).await;
    assert_eq!(ended.of("warning").len(), 0, "{}", ended.stdout);
}

/// Keys of every kind, put together so that none stands in the tree.
fn keys() -> [(&'static str, String); 3] {
    let text = |length| "Ab3".chars().cycle().take(length).collect::<String>();
    [
        ("access key", ["LT", "AI", &text(20)].concat()),
        ("temporary access key", ["ST", "S.", &text(25)].concat()),
        (
            "private key",
            ["-----BEG", "IN RSA PRIVATE ", "KEY-----\n", &text(64)].concat(),
        ),
    ]
}

#[tokio::test]
async fn code_with_a_key_is_refused_by_its_line_and_its_text_is_told_nowhere() {
    let routines = [
        ("hello", "src/hello.js", ""),
        ("raw", "src/raw.js", "check = false"),
        ("fence", "src/fence.js", ""),
    ];
    let bed = Bed::laid_out(&routines, NEVER).await;
    for name in ["hello", "raw", "fence"] {
        bed.write(name, &code(name, 0));
    }
    let log = bed.path("log");
    let mut watch = bed.watch_logged(&["--log", "trace"], &log).await;
    let mut told = String::new();
    for (what, key) in keys() {
        // The line does not parse, either, and would be shown for that.
        let text = format!("let a = 1;\nlet mine = `{key}` }};\n");
        for name in ["hello", "raw"] {
            bed.write(name, &text);
            let event = watch.end_of_edit_of(name).await;
            assert_eq!(event["event"], "error", "{event}");
            let problem = &event["problem"];
            assert_eq!(
                problem["what"],
                format!(
                    "a{} {what} stands in the code",
                    if what.starts_with('a') { "n" } else { "" }
                )
            );
            assert_eq!(
                (&problem["class"], &problem["line"]),
                (&"source".into(), &2.into())
            );
            assert_eq!(problem["file"], format!("src/{name}.js"));
        }
        for arguments in [
            &[
                "push", "--format", "text", "--log", "trace", "--color", "always",
            ][..],
            &["explain", "--format", "text", "src/hello.js"],
            &["status", "--format", "text"],
        ] {
            let ended = bed.run(arguments).await;
            if arguments[0] == "push" {
                assert_eq!(ended.code, Some(65), "{}", ended.stderr);
            }
            assert!(
                ended.stdout.contains("src/hello.js:2:1"),
                "{}",
                ended.stdout
            );
            told.extend([ended.stdout, ended.stderr]);
        }
    }
    bed.assert_uploads("hello", &[code("hello", 0)], "keys");
    bed.assert_uploads("raw", &[code("raw", 0)], "keys");
    bed.write("hello", &code("hello", 1));
    assert_eq!(watch.end_of_edit_of("hello").await["event"], "uploaded");
    told.extend(watch.seen().map(ToString::to_string));
    watch.stop().await;
    told.push_str(&std::fs::read_to_string(log).unwrap());
    for (what, key) in keys() {
        let secret = &key[key.len() - 12..];
        assert!(!told.contains(secret), "{what} is told: {told}");
    }
    assert!(!told.contains("let mine"), "{told}");
}

#[tokio::test]
async fn code_with_a_key_goes_up_where_that_is_allowed() {
    let bed = Bed::new(&["hello"]).await;
    let [first, second, third] = keys().map(|(_, key)| format!("let mine = `{key}`;\n"));
    bed.write("hello", &first);
    let ended = bed.run(&["push"]).await;
    assert_eq!(ended.code, Some(65), "{}", ended.stdout);
    let ended = bed.run(&["push", "--allow-secrets"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    bed.write("hello", &second);
    let mut command = bed.command(&["push"]);
    command.env("ER_DEV_ALLOW_SECRETS", "true");
    assert_eq!(crate::common::finish(command).await.code, Some(0));
    let mut watch = bed.watch(&["--allow-secrets"]).await;
    bed.write("hello", &third);
    bed.until_newest_is("hello", &third).await;
    watch.until("uploaded").await;
    watch.stop().await;
    assert_eq!(
        bed.codes("hello"),
        [first, second, third].map(String::into_bytes)
    );
}
