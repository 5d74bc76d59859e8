//! Curves as SVG, one file a plot.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use keyfob_benches::record::{Curve, Record};
use plotters::prelude::*;

/// Fits a page of text beside nothing else.
const SIZE: (u32, u32) = (860, 460);
/// Told apart also without colour vision (Okabe and Ito, and four more).
const COLOURS: [RGBColor; 12] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(100, 100, 100),
    RGBColor(0, 0, 0),
    RGBColor(140, 100, 60),
    RGBColor(120, 80, 200),
    RGBColor(150, 20, 60),
    RGBColor(150, 185, 50),
];
/// An axis whose ends are further apart than this is logarithmic.
const WIDE: f64 = 50.0;

/// More values than this beside an axis are too many to read.
const LABELS_MAX: usize = 10;

/// A plot that was drawn.
pub struct Drawn {
    /// What it shows.
    pub heading: String,
    /// Relative to the document.
    pub path: String,
}

/// Draws all plots of a suite.
pub fn plots(record: &Record, docs: &Path) -> Result<Vec<Drawn>> {
    let mut drawn = Vec::new();
    let mut seen = BTreeSet::new();
    for curve in &record.curves {
        if !seen.insert(&curve.plot) {
            continue;
        }
        let of = |other: &&Curve| other.plot == curve.plot;
        let curves: Vec<&Curve> = record.curves.iter().filter(of).collect();
        let name: String = curve
            .plot
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_lowercase()
                } else {
                    '-'
                }
            })
            .collect();
        let folder = docs.join("benchmarks");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let file = format!("{}-{name}.svg", record.suite);
        draw(&curve.plot, &curves, &folder.join(&file))
            .with_context(|| format!("cannot draw {file}"))?;
        drawn.push(Drawn {
            heading: curve.plot.clone(),
            path: format!("benchmarks/{file}"),
        });
    }
    Ok(drawn)
}

fn draw(heading: &str, curves: &[&Curve], path: &Path) -> Result<()> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let (x, x_log) = axis(points().map(|point| point.0));
    let (y, y_log) = axis(points().map(|point| point.1));
    let first = curves.first().context("a plot without curves")?;
    // Logarithmic axes are drawn on a linear one of exponents: one kind of chart for all.
    let to = |log: bool, value: f64| if log { value.log10() } else { value };
    let range = |log: bool, range: Range<f64>| to(log, range.start)..to(log, range.end);
    let (x, y) = (range(x_log, x), range(y_log, y));
    let (x_labels, y_labels) = (labels(x_log, &x), labels(y_log, &y));
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| anyhow!("{error}");
    root.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut chart = ChartBuilder::on(&root)
        .caption(heading, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(48)
        .y_label_area_size(72)
        .build_cartesian_2d(x, y)
        .map_err(|error| failed(&error))?;
    let label = |log: bool, value: f64| {
        let value = if log { 10_f64.powf(value) } else { value };
        super::table::short(value)
    };
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_labels(x_labels)
        .y_labels(y_labels)
        .x_desc(first.x.as_str())
        .y_desc(first.y.as_str())
        .x_label_formatter(&|value| label(x_log, *value))
        .y_label_formatter(&|value| label(y_log, *value))
        .draw()
        .map_err(|error| failed(&error))?;
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let at = curve
            .points
            .iter()
            .map(|&(x, y)| (to(x_log, x), to(y_log, y)));
        let at: Vec<(f64, f64)> = at.collect();
        chart
            .draw_series(LineSeries::new(at.iter().copied(), colour.stroke_width(2)))
            .map_err(|error| failed(&error))?
            .label(curve.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
        let dots = at
            .iter()
            .map(|&point| Circle::new(point, 3, colour.filled()));
        chart.draw_series(dots).map_err(|error| failed(&error))?;
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .position(SeriesLabelPosition::UpperLeft)
        .draw()
        .map_err(|error| failed(&error))?;
    root.present().map_err(|error| failed(&error))
}

/// How many values are written beside an axis, as it is drawn: whole decades of a logarithmic one, whole numbers of a short one.
fn labels(log: bool, range: &Range<f64>) -> usize {
    let whole = (range.end.floor() - range.start.ceil()) as usize + 1;
    match log || whole <= LABELS_MAX {
        true => whole.max(2),
        false => LABELS_MAX,
    }
}

/// From the least to the most, with some air; and whether it takes logarithms to see both.
fn axis(values: impl Iterator<Item = f64> + Clone) -> (Range<f64>, bool) {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let most = values.fold(f64::NEG_INFINITY, f64::max);
    if least > 0.0 && most / least > WIDE {
        (least / 1.3..most * 1.3, true)
    } else {
        (least.min(0.0)..most * 1.1 + f64::MIN_POSITIVE, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text beside the axes of a plot of one curve.
    fn written(points: Vec<(f64, f64)>) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("plot.svg");
        let curve = Curve {
            plot: "plot".to_owned(),
            name: "curve".to_owned(),
            x: "across".to_owned(),
            y: "up".to_owned(),
            points,
        };
        draw("plot", &[&curve], &file).unwrap();
        let svg = fs::read_to_string(&file).unwrap();
        let texts = svg.split("<text").skip(1);
        let texts = texts.filter_map(|text| text.split_once('>')?.1.split_once("</text>"));
        texts.map(|(text, _)| text.trim().to_owned()).collect()
    }

    #[test]
    fn a_logarithmic_axis_names_decades() {
        let texts = written((0..=4).map(|i| (10_f64.powi(i), f64::from(i))).collect());
        for decade in ["1", "10", "100", "1,000", "10,000"] {
            assert!(texts.iter().any(|text| text == decade), "{texts:?}");
        }
        assert!(
            !texts.iter().any(|text| text.starts_with("3.16")),
            "{texts:?}"
        );
    }

    #[test]
    fn a_short_axis_names_whole_numbers() {
        let texts = written(vec![(1.0, 300.0), (2.0, 590.0)]);
        assert!(
            !texts.iter().any(|text| text == "0.5" || text == "1.5"),
            "{texts:?}"
        );
        assert!(texts.iter().any(|text| text == "2"), "{texts:?}");
    }
}
