//! The text that Prometheus reads, made from that of OpenMetrics: counters are described under the whole name of their
//! samples, and a few have names of before there was a rule for them.

use std::fmt::Write;

/// Counters that upstream names without `_total`.
const WITHOUT_TOTAL: [&str; 4] = [
    "apiserver_admission_webhook_fail_open_count",
    "apiserver_admission_webhook_rejection_count",
    "authenticated_user_requests",
    "authentication_attempts",
];

pub fn from_open_metrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help = None;
    // of the counter whose samples come now: their name, and whether it loses its end
    let mut counter: Option<(String, bool)> = None;
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
            continue;
        }
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' ')) {
            let short = WITHOUT_TOTAL.contains(&name);
            let whole = if kind == "counter" && !short { format!("{name}_total") } else { name.to_owned() };
            if let Some((_, help)) = help.take() {
                let _ = writeln!(out, "# HELP {whole} {help}");
            }
            let _ = writeln!(out, "# TYPE {whole} {kind}");
            counter = (kind == "counter").then(|| (format!("{name}_total"), short));
            continue;
        }
        // a marker of OpenMetrics that the older format does not know
        if line == "# EOF" {
            continue;
        }
        let sample = match &counter {
            Some((name, true)) => line.strip_prefix(name.as_str()),
            _ => None,
        };
        match (sample, &counter) {
            (Some(rest), Some((name, _))) => {
                let _ = writeln!(out, "{}{rest}", name.trim_end_matches("_total"));
            }
            _ => {
                let _ = writeln!(out, "{line}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_described_by_the_name_of_their_samples() {
        let text = "# HELP a_b Help.\n# TYPE a_b counter\na_b_total{x=\"a_b_total\"} 1\n\
                    # HELP authentication_attempts Help.\n# TYPE authentication_attempts counter\n\
                    authentication_attempts_total{result=\"success\"} 2\n\
                    # HELP g Help.\n# TYPE g gauge\ng 3\n# EOF\n";
        let wanted = "# HELP a_b_total Help.\n# TYPE a_b_total counter\na_b_total{x=\"a_b_total\"} 1\n\
                      # HELP authentication_attempts Help.\n# TYPE authentication_attempts counter\n\
                      authentication_attempts{result=\"success\"} 2\n\
                      # HELP g Help.\n# TYPE g gauge\ng 3\n";
        assert_eq!(from_open_metrics(text), wanted);
    }
}
