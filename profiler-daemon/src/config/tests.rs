//! Layers go in their order, every problem is named with its place, the default file is as stated.

use super::*;

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("p.toml");
    std::fs::write(&path, text).expect("written");
    (directory, path)
}

fn load(text: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
    let (directory, path) = file(text);
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
    let flags: Vec<(&str, String)> = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    let prefix = format!("{}/", directory.path().display());
    Config::load(Some(&path), environment, &flags)
        .map_err(|error| error.to_string().replace(&prefix, "").lines().map(str::to_owned).collect())
}

fn problems(text: &str) -> Vec<String> {
    load(text, &[], &[]).expect_err("must fail")
}

#[test]
fn nothing_said_means_the_defaults() {
    let loaded = Config::load(None, [], &[]).expect("valid");
    assert_eq!(loaded, Loaded { config: Config::default(), warnings: Vec::new() });
}

#[test]
fn later_layers_go_first() {
    let text = "window = \"5s\"\n[on_cpu]\nfrequency = 11\n[log]\nlevel = \"debug\"\n";
    let environment = [("PROFILER_ON_CPU_FREQUENCY", "22"), ("PROFILER_LOG_LEVEL", "warn"), ("HOME", "/")];
    let loaded = load(text, &environment, &[("on_cpu.frequency", "33")]).expect("valid");
    let expected = Config {
        window: Duration::from_secs(5),
        on_cpu: OnCpu { frequency: 33, event: CpuEvent::Auto },
        log: Log { level: LevelFilter::WARN, ..Config::default().log },
        ..Config::default()
    };
    assert_eq!(loaded, Loaded { config: expected, warnings: Vec::new() });
}

#[test]
fn every_key_from_every_layer() {
    let environment = [
        ("PROFILER_LISTEN", "unix:///a/b.sock, localhost:9191"),
        ("PROFILER_HTTP", "[::1]:9190"),
        ("PROFILER_RETENTION_BYTES", "1GiB"),
        ("PROFILER_SYMBOLS_INLINED", "false"),
        ("PROFILER_SYMBOLS_DEBUG_DIRS", ""),
        ("PROFILER_SYMBOLS_DEBUGINFOD_URLS", "https://a.example/x, http://127.0.0.1:8002"),
        ("PROFILER_SYMBOLS_DEBUGINFOD_CACHE_BYTES", "32MiB"),
    ];
    let flags = [("retention.age", "2h"), ("capture.max_running", "8"), ("log.format", "json")];
    let config = load("[capture]\nmax_duration = \"1m\"\n", &environment, &flags).expect("valid").config;
    let listen = [Listen::Unix("/a/b.sock".into()), Listen::Tcp(([127, 0, 0, 1], 9191).into())];
    assert_eq!(config.listen, listen);
    assert_eq!(config.http.map(|address| address.to_string()).as_deref(), Some("[::1]:9190"));
    assert_eq!(
        config.retention,
        Retention { age: Duration::from_secs(7200), bytes: 1 << 30, in_memory: false }
    );
    let symbols = Symbols {
        debug_dirs: Vec::new(),
        inlined: false,
        debuginfod_urls: vec!["https://a.example/x".to_owned(), "http://127.0.0.1:8002".to_owned()],
        debuginfod_cache_bytes: 32 << 20,
    };
    assert_eq!(config.symbols, symbols);
    assert_eq!(
        config.capture,
        Capture { max_duration: Duration::from_secs(60), max_running: 8, ..Config::default().capture }
    );
    assert_eq!(config.log.format, LogFormat::Json);
    // What is shown is what is read.
    assert_eq!(load(&config.to_toml(), &[], &[]).expect("valid").config, config);
}

#[test]
fn unknown_keys_name_line_and_nearest() {
    assert_eq!(
        problems("window = \"5s\"\n\n[on_cpu]\nfrequncy = 1\n[shop]\nx = 1\n"),
        [
            "p.toml:4: unknown key \"on_cpu.frequncy\"; the nearest known key is \"on_cpu.frequency\"",
            "p.toml:5: unknown key \"shop\"",
        ]
    );
    assert_eq!(
        problems("frequency = 5\n"),
        ["p.toml:1: unknown key \"frequency\"; the nearest known key is \"on_cpu.frequency\""]
    );
    assert_eq!(problems("\"\\u001b[2J\" = 5\n"), ["p.toml:1: unknown key \"\\u{1b}[2J\""]);
}

#[test]
fn wrong_types_name_the_line() {
    assert_eq!(
        problems("listen = \"unix:///a\"\nwindow = 5\n[on_cpu]\nfrequency = \"99\"\n"),
        [
            "p.toml:1: listen wants a list of strings, not a string",
            "p.toml:2: window wants a string, not an integer",
            "p.toml:4: on_cpu.frequency wants a decimal integer, not a string",
        ]
    );
    assert_eq!(problems("on_cpu = 5\n"), ["p.toml:1: [on_cpu] is a section, not an integer"]);
    assert_eq!(
        problems("listen = [\n 1]\n"),
        ["p.toml:1: listen wants a list of strings, not an integer in its list"]
    );
}

#[test]
fn what_is_no_toml_names_the_line() {
    let found = problems("window = \"5s\"\n[on_cpu\nfrequency = 1\n");
    assert!(found[0].starts_with("p.toml:2: not valid TOML: "), "{found:?}");
    assert!(problems("window = \"5s\"\nwindow = \"6s\"\n")[0].starts_with("p.toml:2: not valid TOML"));
}

#[test]
fn values_out_of_range() {
    let one = |text: &str| match problems(text).as_slice() {
        [problem] => problem.clone(),
        several => panic!("{several:?}"),
    };
    assert_eq!(one("on_cpu.frequency = 0"), "p.toml:1: 0 is not a whole number between 1 and 100000");
    assert_eq!(one("window = \"11m\""), "p.toml:1: 11m is not between 1s and 10m");
    assert_eq!(one("retention.bytes = \"1KiB\""), "p.toml:1: 1KiB is not between 1MiB and 1TiB");
    assert_eq!(one("retention.bytes = \"much\""), "p.toml:1: \"much\" is not a size such as 256MiB or 2GiB");
    assert_eq!(one("state_dir = \"here\""), "p.toml:1: \"here\" is not an absolute path");
    assert_eq!(one("listen = []"), "p.toml:1: wants at least one address");
    assert!(one("listen = [\"unix://run.sock\"]").contains("not an absolute path"));
    assert!(one("listen = [\"example.org:1\"]").contains("write IP:PORT"));
    assert!(one("log.level = \"loud\"").contains("off, error, warn"));
    assert!(one("capture.max_running = 65").contains("between 1 and 64"));
    let long = format!("listen = [\"unix:///{}\"]", "a".repeat(107));
    assert_eq!(one(&long), "p.toml:1: the socket's path has 108 bytes; at most 107 are possible");
}

#[test]
fn what_starts_captures() {
    let text = "http = \"127.0.0.1:1\"\n[trigger]\nduration = \"10s\"\ncooldown = \"0s\"\n\
                [webhook]\ntargets = [\"process=pid\"]\n\
                [pressure]\nrules = [\"host cpu some 1s/2s\", \"a/b io full 100ms/1s\"]\n";
    let token = [("PROFILER_WEBHOOK_TOKEN", "0123456789abcdef")];
    let config = load(text, &token, &[]).expect("valid").config;
    assert_eq!((config.trigger.duration, config.trigger.cooldown), (Duration::from_secs(10), Duration::ZERO));
    assert_eq!(config.webhook.token.as_ref().map(Secret::expose), Some("0123456789abcdef"));
    let rules: Vec<String> = config.pressure.rules.iter().map(ToString::to_string).collect();
    assert_eq!(rules, ["host cpu some 1s/2s", "a/b io full 100ms/1s"]);
    // What is shown holds everything but the token.
    let shown = config.to_toml();
    assert!(!shown.contains("0123456789abcdef") && !format!("{config:?}").contains("0123456789abcdef"));
    assert_eq!(load(&shown, &token, &[]).expect("valid").config, config);

    let wrong = problems("[pressure]\nrules = [\"host cpu some 1s/2s\", \"host cpu some\"]\n");
    assert!(wrong[0].starts_with("p.toml:2: pressure rule \"host cpu some\": has 3 words"), "{wrong:?}");
    let wrong = problems("[webhook]\ntoken = \"0123456789abcdef\"\n");
    assert_eq!(wrong, ["p.toml:2: the webhook is served over HTTP, which is off: set http"]);
    let wrong = problems("http_token_file = \"/a\"\n");
    assert_eq!(wrong, ["p.toml:1: flame graphs are served over HTTP, which is off: set http"]);
    let wrong = load("[trigger]\nduration = \"5m\"\n[capture]\nmax_duration = \"1m\"\n", &[], &[]);
    assert_eq!(wrong.expect_err("must fail"), ["p.toml:2: 5m is longer than capture.max_duration (1m)"]);
}

#[test]
fn wrong_variables_and_flags_are_named() {
    let found = load(
        "window = 1\n",
        &[("PROFILER_WINDOW", "soon"), ("PROFILER_INSECURE", "yes")],
        &[("retention.age", "-1")],
    );
    let found = found.expect_err("must fail");
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found[0].starts_with("p.toml:1: "), "{found:?}");
    assert_eq!(found[1], "PROFILER_INSECURE: \"yes\" is neither true nor false");
    assert!(found[2].starts_with("PROFILER_WINDOW: \"soon\" is not a duration"), "{found:?}");
    assert!(found[3].starts_with("--retention-age: "), "{found:?}");
}

#[test]
fn unknown_variables_are_warned_about() {
    let environment = [("PROFILER_WINDW", "5s"), ("PROFILER_CONNECT", "x"), ("PROFILER_CONFIG", "x")];
    let loaded = load("", &environment, &[]).expect("valid");
    assert_eq!(
        loaded.warnings,
        ["PROFILER_WINDW is not a known variable and has no effect; did you mean PROFILER_WINDOW?"]
    );
}

#[test]
fn exposed_addresses_need_consent() {
    let text = "http = \"0.0.0.0:1\"\nlisten = [\"unix:///a\", \"[::]:2\"]\n";
    let found = problems(text);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("p.toml:2: [::]:2 would serve profiles unencrypted"), "{found:?}");
    assert!(found[1].starts_with("p.toml:1: 0.0.0.0:1 would serve metrics unencrypted"), "{found:?}");
    assert!(found[1].contains("insecure = true"), "{found:?}");
    assert!(load(&format!("insecure = true\n{text}"), &[], &[]).is_ok());
    assert!(load("listen = [\"127.0.0.2:2\"]\n", &[], &[]).is_ok());
}

#[test]
fn what_does_not_fit_together() {
    let found = load("[retention]\nage = \"5s\"\n", &[], &[]).expect_err("must fail");
    assert_eq!(found, ["p.toml:2: 5s is shorter than one window of 10s; nothing would be kept"]);
    let found = load("", &[("PROFILER_RUN_DIR", &format!("/{}", "r".repeat(100)))], &[]);
    assert_eq!(
        found.expect_err("must fail"),
        ["listen (default): the socket's path has 115 bytes; at most 107 are possible"]
    );
}

#[test]
fn the_default_socket_is_in_the_run_dir() {
    let config = load("run_dir = \"/run/other\"\n", &[], &[]).expect("valid").config;
    assert_eq!(config.listen, [Listen::Unix("/run/other/profiler.sock".into())]);
}

#[test]
fn files_that_cannot_be_read() {
    let message = |path: &Path| Config::load(Some(path), [], &[]).expect_err("must fail").to_string();
    assert!(message(Path::new("/nonexistent.toml")).starts_with("/nonexistent.toml: cannot be opened: "));
    assert!(message(Path::new("/")).starts_with("/: cannot be read: "));
    assert!(message(Path::new("/dev/zero")).ends_with("larger than 1 MiB; is this the configuration file?"));
    let (_directory, path) = file("");
    std::fs::write(&path, b"a = 1\n\xff").expect("written");
    assert!(message(&path).ends_with("p.toml:2: is not valid UTF-8"), "{}", message(&path));
}

/// The file that is shipped; `BLESS=1` writes it.
#[test]
fn the_default_file_is_as_blessed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/profiler.toml");
    let text = Config::default_file();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text, "run with BLESS=1 to write it");
    assert_eq!(load(&text, &[], &[]).expect("valid").config, Config::default());
    for key in Config::keys() {
        let name = key.rsplit('.').next().unwrap_or(key);
        assert!(text.contains(&format!("\n{name} =")) || text.contains(&format!("\n# {name} =")), "{key}");
    }
}
