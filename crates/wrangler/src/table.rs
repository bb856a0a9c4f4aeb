//! ASCII tables of query results: borders, centred headers, numbers to the right, long text wrapped.
//!
//! The shape is that of the table writer Vitess's tools use, down to where it breaks lines: operators
//! compare such output.

/// Widest a wrapped column gets, characters, unless a single word is longer.
const MAX_WIDTH: usize = 30;

/// Draws a table. Cells may hold newlines; they are joined and wrapped again.
pub fn render(header: &[String], rows: &[Vec<String>]) -> String {
    draw(header, rows, wrap)
}

/// The same with each cell on one line.
pub fn render_unwrapped(header: &[String], rows: &[Vec<String>]) -> String {
    draw(header, rows, |cell| (cell.chars().count(), vec![cell.to_owned()]))
}

/// `lay_out` says how wide a cell wants to be, and its lines.
fn draw(header: &[String], rows: &[Vec<String>], lay_out: impl Fn(&str) -> (usize, Vec<String>)) -> String {
    let columns = rows.iter().map(Vec::len).chain([header.len()]).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    let mut wrap_row = |cells: &[String]| -> Vec<Vec<String>> {
        cells
            .iter()
            .enumerate()
            .map(|(i, cell)| {
                let (width, lines) = lay_out(cell);
                widths[i] = widths[i].max(width);
                lines
            })
            .collect()
    };
    let header = wrap_row(header);
    let rows: Vec<Vec<Vec<String>>> = rows.iter().map(|row| wrap_row(row)).collect();

    let mut border = String::from("+");
    for width in &widths {
        border.push_str(&"-".repeat(width + 2));
        border.push('+');
    }
    border.push('\n');

    let mut out = border.clone();
    if !header.is_empty() {
        push_row(&mut out, &header, &widths, |text, width| {
            let gap = width - text.chars().count();
            format!("{}{text}{}", " ".repeat(gap / 2), " ".repeat(gap - gap / 2))
        });
        out.push_str(&border);
    }
    for row in &rows {
        push_row(&mut out, row, &widths, |text, width| {
            if is_number(text) { format!("{text:>width$}") } else { format!("{text:<width$}") }
        });
    }
    out.push_str(&border);
    out
}

fn push_row(out: &mut String, cells: &[Vec<String>], widths: &[usize], pad: impl Fn(&str, usize) -> String) {
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    for line in 0..height {
        out.push('|');
        for (i, width) in widths.iter().enumerate() {
            let text = cells.get(i).and_then(|lines| lines.get(line)).map_or("", String::as_str);
            out.push(' ');
            out.push_str(&pad(text, *width));
            out.push_str(" |");
        }
        out.push('\n');
    }
}

/// The width a cell asks for, and its lines.
fn wrap(cell: &str) -> (usize, Vec<String>) {
    let widest = cell.split('\n').map(|line| line.chars().count()).max().unwrap_or(0).min(MAX_WIDTH);
    let words: Vec<&str> = cell.split(['\n', ' ']).collect();
    let lines = wrap_words(&words, widest);
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0).max(widest);
    (width, lines)
}

/// Breaks words into lines so that the sum of the squares of what is left empty is least; the last
/// line is free. A word longer than the limit widens the limit.
fn wrap_words(words: &[&str], limit: usize) -> Vec<String> {
    let lengths: Vec<usize> = words.iter().map(|word| word.chars().count()).collect();
    let limit = lengths.iter().copied().max().unwrap_or(0).max(limit);
    let count = words.len();
    // From the back: the least cost of the words from `i` on, and where their first line ends.
    let mut cost = vec![u64::MAX; count + 1];
    let mut end = vec![count; count + 1];
    cost[count] = 0;
    for i in (0..count).rev() {
        let mut length = 0;
        for j in i..count {
            length += lengths[j] + usize::from(j > i);
            if length > limit {
                break;
            }
            let left = (limit - length) as u64;
            let total = if j + 1 == count { 0 } else { (left * left).saturating_add(cost[j + 1]) };
            // On equal costs the shorter first line wins, except that reaching the end is always best.
            if total < cost[i] || j + 1 == count {
                cost[i] = total;
                end[i] = j + 1;
            }
        }
    }
    let mut lines = Vec::new();
    let mut i = 0;
    while i < count {
        lines.push(words[i..end[i]].join(" "));
        i = end[i];
    }
    lines
}

/// Digits with an optional sign and fraction, possibly with thousands separated by commas, or a percentage.
fn is_number(text: &str) -> bool {
    let text = text.trim();
    let text = text.strip_prefix('-').unwrap_or(text);
    let text = text.strip_suffix('%').unwrap_or(text);
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(w, f)| (w, Some(f)));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or("");
    let grouped = whole.contains(',');
    digits(first)
        && (!grouped || first.len() <= 3)
        && groups.all(|g| g.len() == 3 && digits(g))
        && fraction.is_none_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|&c| c.to_owned()).collect()
    }

    #[test]
    fn null_is_an_empty_cell() {
        let table = render(&strings(&["a", "b"]), &[strings(&["1", ""])]);
        assert_eq!(table, "+---+---+\n| a | b |\n+---+---+\n| 1 |   |\n+---+---+\n");
    }

    #[test]
    fn long_text_is_wrapped_evenly_in_a_column_of_full_width() {
        let source = "keyspace:\"commerce\" shard:\"0\" tables:\"customer\" tables:\"corder\" ";
        let table = render(&strings(&["id", "source", "state"]), &[strings(&["1", source, "Running"])]);
        assert_eq!(
            table,
            "\
+----+--------------------------------+---------+
| id |             source             |  state  |
+----+--------------------------------+---------+
|  1 | keyspace:\"commerce\"            | Running |
|    | shard:\"0\" tables:\"customer\"    |         |
|    | tables:\"corder\"                |         |
+----+--------------------------------+---------+
"
        );
    }

    #[test]
    fn a_statement_without_columns_has_only_corners() {
        assert_eq!(render(&[], &[]), "+\n+\n");
    }

    #[test]
    fn no_rows_leave_the_header() {
        assert_eq!(render(&strings(&["name"]), &[]), "+------+\n| name |\n+------+\n+------+\n");
    }

    #[test]
    fn numbers_are_recognised() {
        for number in ["1", "-1.5", "1,234", "12%"] {
            assert!(is_number(number), "{number}");
        }
        for text in ["", "-", "1.", "1,23", "a1", "1e5"] {
            assert!(!is_number(text), "{text}");
        }
    }
}
