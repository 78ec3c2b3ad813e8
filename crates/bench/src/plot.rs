//! An SVG of a run: for each measurement its throughput and its latencies, second by second.

use std::fmt::Write;

use crate::record::Second;

/// One measurement over time.
pub struct Curve {
    pub name: String,
    pub seconds: Vec<Second>,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 46.0;
const GAP: f64 = 56.0;

pub fn svg(title: &str, curves: &[Curve]) -> String {
    let height = TOP + curves.len() as f64 * (HEIGHT + GAP);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"22\" font-size=\"16\">{1}</text>\n",
        LEFT + WIDTH + 80.0,
        escape(title),
    );
    for (index, curve) in curves.iter().enumerate() {
        panel(&mut out, curve, TOP + index as f64 * (HEIGHT + GAP));
    }
    out.push_str("</svg>\n");
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Throughput as bars against the left axis, p50 and p99 as lines against the right one.
fn panel(out: &mut String, curve: &Curve, top: f64) {
    let most = |of: fn(&Second) -> f64| curve.seconds.iter().map(of).fold(0.0, f64::max).max(0.001);
    let (rate, latency) = (most(|s| s.count as f64), most(|s| s.p99_ms));
    let step = WIDTH / curve.seconds.len().max(1) as f64;
    let bottom = top + HEIGHT;
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"{0}\"><tspan font-weight=\"bold\">{1}</tspan>  <tspan fill=\"#7a9cc6\">requests/s</tspan>  \
         <tspan fill=\"#2e7d32\">p50</tspan> <tspan fill=\"#c62828\">p99</tspan> ms, by second</text>",
        top - 6.0,
        escape(&curve.name),
    );
    for (index, second) in curve.seconds.iter().enumerate() {
        let height = HEIGHT * second.count as f64 / rate;
        let _ = writeln!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"#c9d8ec\"/>",
            LEFT + index as f64 * step,
            bottom - height,
            (step - 1.0).max(0.5),
        );
    }
    for (color, of) in [("#2e7d32", (|s| s.p50_ms) as fn(&Second) -> f64), ("#c62828", |s| s.p99_ms)] {
        let points: Vec<String> = curve
            .seconds
            .iter()
            .enumerate()
            .map(|(index, second)| {
                let x = LEFT + (index as f64 + 0.5) * step;
                format!("{x:.1},{:.1}", bottom - HEIGHT * of(second) / latency)
            })
            .collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>",
            points.join(" ")
        );
    }
    let _ = writeln!(
        out,
        "<path d=\"M{LEFT} {top}V{bottom}H{0}V{top}\" fill=\"none\" stroke=\"#888\"/>\n\
         <text x=\"{1}\" y=\"{2}\" text-anchor=\"end\">{rate:.0}/s</text>\n<text x=\"{3}\" y=\"{2}\">{latency:.1} ms</text>\n\
         <text x=\"{LEFT}\" y=\"{4}\">0 s</text>\n<text x=\"{0}\" y=\"{4}\" text-anchor=\"end\">{5} s</text>",
        LEFT + WIDTH,
        LEFT - 6.0,
        top + 10.0,
        LEFT + WIDTH + 6.0,
        bottom + 16.0,
        curve.seconds.len(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_holds_every_curve() {
        let second = Second { count: 10, p50_ms: 1.0, p99_ms: 4.0 };
        let curve = |name: &str, seconds| Curve { name: name.into(), seconds };
        let text = svg("a<b", &[curve("get", vec![second; 3]), curve("empty", Vec::new())]);
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        assert!(text.contains("a&lt;b") && text.contains("get") && text.contains("empty"));
        assert_eq!(text.matches("<polyline").count(), 4);
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}
