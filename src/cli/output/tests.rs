use serde_json::json;

use super::*;

fn table() -> Table {
    Table {
        columns: ["id", "email", "stored_bytes", "created_at"].map(str::to_owned).to_vec(),
        rows: vec![
            vec![json!(1), json!("a@example.org"), json!(1536), json!(0)],
            vec![json!(20), json!("b\t\u{1b}[2J\n"), json!(7), Value::Null],
        ],
    }
}

#[test]
fn a_pipe_gets_tabs_bytes_and_no_header() {
    let found = lines(&table(), false, None);
    let wanted = [
        "1\ta@example.org\t1536\t1970-01-01T00:00:00.000Z",
        "20\tb\\u{9}\\u{1b}[2J\\u{a}\t7\tnever",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn a_terminal_gets_columns_and_a_header() {
    let found = lines(&table(), true, None);
    let wanted = [
        "ID  EMAIL                 STORED   CREATED",
        "1   a@example.org         1.5 KiB  1970-01-01T00:00:00.000Z",
        "20  b\\u{9}\\u{1b}[2J\\u{a}  7 B      never",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn a_size_has_the_unit_that_keeps_it_short() {
    for (bytes, text) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1_048_575, "1.0 MiB"),
        (64 << 20, "64.0 MiB"),
        (u64::MAX, "16777216.0 TiB"),
    ] {
        assert_eq!(size(bytes, true), text);
        assert_eq!(size(bytes, false), bytes.to_string());
    }
}

#[test]
fn progress_says_bytes_percent_and_time_left() {
    let line = progress_line("verified", 1 << 20, 4 << 20, Duration::from_secs(60));
    assert_eq!(line, "1.0 MiB of 4.0 MiB verified, 25 %, 3 minutes left");
    let line = progress_line("verified", 2, 2, Duration::from_secs(1));
    assert_eq!(line, "2 B of 2 B verified, 100 %, 0 seconds left");
    assert!(progress_line("verified", 0, 1, Duration::ZERO).contains("0 %"));
}

#[test]
fn a_length_of_time_is_said_in_one_unit() {
    for (seconds, text) in
        [(1, "1 second"), (119, "119 seconds"), (120, "2 minutes"), (86_400 * 3, "3 days")]
    {
        assert_eq!(span(seconds), text);
    }
}
