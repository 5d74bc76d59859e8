//! Rows as Markdown tables, each with its ratio to what the table compares with.

use std::fmt::Write as _;

use keyfob_benches::record::Row;

/// How the names of floors begin.
const FLOOR: &str = "floor";
/// How our own rows begin where peers are measured beside us.
const OURS: &str = "keyfob";

/// One table for each group, in the order of the rows.
pub fn tables(rows: &[Row]) -> String {
    let mut groups: Vec<&str> = Vec::new();
    for row in rows {
        if !groups.contains(&row.group.as_str()) {
            groups.push(&row.group);
        }
    }
    let mut all = String::new();
    for group in groups {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.group == group).collect();
        all.push_str(&table(group, &rows));
    }
    all
}

fn table(group: &str, rows: &[&Row]) -> String {
    let base = base(rows);
    let notes = rows.iter().any(|row| !row.note.is_empty());
    let mut head = vec![group.to_owned(), String::new()];
    head.extend(base.map(|base| format!("against {}", base.name)));
    head.extend(notes.then(String::new));
    let mut text = String::from("\n");
    let mut line = |cells: &[String]| {
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    line(&head);
    line(&vec!["---".to_owned(); head.len()]);
    for row in rows {
        let mut cells = vec![row.name.clone(), figure(row.value, &row.unit)];
        if let Some(base) = base {
            let comparable = base.unit == row.unit && base.value > 0.0;
            cells.push(if comparable {
                format!("{} ×", short(row.value / base.value))
            } else {
                String::new()
            });
        }
        if notes {
            cells.push(row.note.clone());
        }
        line(&cells);
    }
    text
}

/// What a group compares with: its first floor, else our first row. A group of one kind compares with nothing.
fn base<'r>(rows: &[&'r Row]) -> Option<&'r Row> {
    let starting = |with: &str| {
        let mut rows = rows.iter();
        rows.find(|row| row.name.to_lowercase().starts_with(with))
            .copied()
    };
    let base = starting(FLOOR).or_else(|| starting(OURS))?;
    (rows.len() > 1).then_some(base)
}

/// A figure with its unit, nanoseconds in what reads best.
fn figure(value: f64, unit: &str) -> String {
    let (value, unit) = match unit {
        "ns" if value >= 1e6 => (value / 1e6, "ms"),
        "ns" if value >= 1e4 => (value / 1e3, "µs"),
        unit => (value, unit),
    };
    format!("{} {unit}", short(value))
}

/// Three figures that count, and thousands apart.
pub fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = value.abs().log10().floor();
    if digits >= 2.0 {
        return thousands(value.round());
    }
    let decimals = (2.0 - digits).clamp(0.0, 4.0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

fn thousands(whole: f64) -> String {
    let digits = format!("{whole:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        let left = digits.len() - at;
        if at > 0 && left % 3 == 0 && digits.as_bytes()[at - 1].is_ascii_digit() {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_keep_what_counts() {
        let shown = [0.0, 0.2512, 1.0, 9.876, 12.34, 123.4, 1_234.5, 1_234_567.0].map(short);
        let expected = [
            "0",
            "0.251",
            "1",
            "9.88",
            "12.3",
            "123",
            "1,235",
            "1,234,567",
        ];
        assert_eq!(shown, expected);
        assert_eq!(figure(12_340.0, "ns"), "12.3 µs");
        assert_eq!(figure(3.0, "calls"), "3 calls");
    }

    #[test]
    fn a_table_compares_with_its_floor_and_only_what_has_the_same_unit() {
        let row = |name: &str, value, unit: &str| Row {
            group: "g".to_owned(),
            name: name.to_owned(),
            value,
            unit: unit.to_owned(),
            note: String::new(),
        };
        let rows = [
            row("ours", 3.0, "ns"),
            row("floor: bare", 2.0, "ns"),
            row("calls", 1.0, "calls"),
        ];
        let text = tables(&rows);
        assert!(text.contains("| ours | 3 ns | 1.5 × |"), "{text}");
        assert!(text.contains("| calls | 1 calls |  |"), "{text}");
    }
}
