//! Comma-separated values as Go's `encoding/csv` reads them, with its errors.

/// All records of `text`. Empty lines are none; records may differ in how many fields they have.
pub fn read(text: &str) -> Result<Vec<Vec<String>>, String> {
    let mut lines = Lines { rest: text, number: 0 };
    let mut records = Vec::new();
    while let Some(line) = lines.next() {
        if line != "\n" && !line.is_empty() {
            records.push(record(line, &mut lines)?);
        }
    }
    Ok(records)
}

/// Lines with their end, of which a carriage return is no part.
struct Lines<'t> {
    rest: &'t str,
    number: usize,
}

impl<'t> Lines<'t> {
    fn next(&mut self) -> Option<String> {
        if self.rest.is_empty() {
            return None;
        }
        self.number += 1;
        let end = self.rest.find('\n').map_or(self.rest.len(), |at| at + 1);
        let (line, rest): (&'t str, &'t str) = self.rest.split_at(end);
        self.rest = rest;
        Some(match line.strip_suffix("\r\n") {
            Some(line) => format!("{line}\n"),
            None if rest.is_empty() => line.strip_suffix('\r').unwrap_or(line).to_owned(),
            None => line.to_owned(),
        })
    }
}

fn record(mut line: String, lines: &mut Lines<'_>) -> Result<Vec<String>, String> {
    const BARE: &str = "bare \" in non-quoted field";
    const QUOTE: &str = "extraneous or missing \" in quoted-field";
    let first = lines.number;
    let error = |number: usize, column: usize, what: &str| match number == first {
        true => format!("parse error on line {number}, column {column}: {what}"),
        false => format!("record on line {first}; parse error on line {number}, column {column}: {what}"),
    };
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        let Some(quoted) = line[at..].strip_prefix('"') else {
            let rest = line[at..].strip_suffix('\n').unwrap_or(&line[at..]);
            let field = rest.split(',').next().unwrap_or_default();
            if let Some(quote) = field.find('"') {
                return Err(error(lines.number, at + quote + 1, BARE));
            }
            fields.push(field.to_owned());
            if field.len() == rest.len() {
                return Ok(fields);
            }
            at += field.len() + 1;
            continue;
        };
        at = line.len() - quoted.len();
        let mut field = String::new();
        loop {
            let Some(quote) = line[at..].find('"') else {
                field.push_str(&line[at..]);
                let Some(next) = lines.next() else {
                    return Err(error(lines.number, line.len() + 1, QUOTE));
                };
                (line, at) = (next, 0);
                continue;
            };
            field.push_str(&line[at..at + quote]);
            at += quote + 1;
            match line[at..].chars().next() {
                Some('"') => {
                    field.push('"');
                    at += 1;
                }
                Some(',') => {
                    fields.push(field);
                    at += 1;
                    break;
                }
                None | Some('\n') => {
                    fields.push(field);
                    return Ok(fields);
                }
                Some(_) => return Err(error(lines.number, at, QUOTE)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_go_reads_them() {
        let cases: [(&str, &[&[&str]]); 9] = [
            ("", &[]),
            ("\n\r\n", &[]),
            ("a,b,c", &[&["a", "b", "c"]]),
            ("a,b\r\n\nc\n", &[&["a", "b"], &["c"]]),
            ("a,\n", &[&["a", ""]]),
            (",", &[&["", ""]]),
            ("t,u,1,\"g1,g2\"\n", &[&["t", "u", "1", "g1,g2"]]),
            ("\"a \"\"b\"\"\",c", &[&["a \"b\"", "c"]]),
            ("\"two\nlines\",x\ny", &[&["two\nlines", "x"], &["y"]]),
        ];
        for (text, wanted) in cases {
            assert_eq!(read(text).expect(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn errors_are_gos() {
        let cases = [
            ("a,b\"c", "parse error on line 1, column 4: bare \" in non-quoted field"),
            ("x\n\"a\"b,c", "parse error on line 2, column 3: extraneous or missing \" in quoted-field"),
            ("\"abc", "parse error on line 1, column 5: extraneous or missing \" in quoted-field"),
            (
                "\"a\nb\"c",
                "record on line 1; parse error on line 2, column 2: extraneous or missing \" in quoted-field",
            ),
        ];
        for (text, wanted) in cases {
            assert_eq!(read(text), Err(wanted.to_owned()), "{text:?}");
        }
    }
}
