//! A plot as an SVG file: axes with units, lines with points, a legend. Readable in light and dark, without fonts of its own.
//!
//! Must never depend on anything outside the file.

use super::scale::Scale;
use super::tables::{grouped, number};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 430.0;
const LEFT: f64 = 72.0;
/// Half of the longest label of the axis fits in.
const RIGHT: f64 = 46.0;
const TOP: f64 = 74.0;
/// Below the plot: the labels of the axis, its name, and the legend's rows.
const BOTTOM: f64 = 104.0;
const LEGEND_ROW: f64 = 22.0;

/// An estimate, as nobody knows the reader's font: the width of a letter of 13 pixels.
const LETTER: f64 = 6.9;

/// Half the size of a point.
const POINT: f64 = 4.5;

/// Colours that people who see fewer of them can tell apart; points have shapes besides.
const STYLE: &str = "\
text{font-family:system-ui,sans-serif;font-size:13px;fill:#1f2328}.t{font-size:16px;font-weight:600}.m{fill:#59636e}\
.b{fill:#ffffff}.g{stroke:#d1d9e0;stroke-width:1}.a{stroke:#59636e;stroke-width:1}\
.l{fill:none;stroke-width:2;stroke-linejoin:round}.d{stroke-dasharray:6 4}\
.s0{stroke:#0969da}.p0{fill:#0969da}.s1{stroke:#bc4c00}.p1{fill:#bc4c00}.s2{stroke:#6e7781}.p2{fill:#6e7781}\
.s3{stroke:#1a7f37}.p3{fill:#1a7f37}.s4{stroke:#8250df}.p4{fill:#8250df}\
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.m{fill:#9198a1}.b{fill:#0d1117}.g{stroke:#2f353d}.a{stroke:#9198a1}\
.s0{stroke:#58a6ff}.p0{fill:#58a6ff}.s1{stroke:#f0883e}.p1{fill:#f0883e}.s2{stroke:#9ea7b3}.p2{fill:#9ea7b3}\
.s3{stroke:#3fb950}.p3{fill:#3fb950}.s4{stroke:#bc8cff}.p4{fill:#bc8cff}}";

/// One line of a plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub name: String,
    /// Its colour and the shape of its points: 0 to 4. 2 is grey and dashed, for what is only there to compare with.
    pub look: usize,
    /// Ascending.
    pub points: Vec<(f64, f64)>,
}

/// A plot, both axes logarithmic.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    pub title: String,
    /// What is varied, with its unit.
    pub x: String,
    /// What is measured, with its unit.
    pub y: String,
    pub series: Vec<Series>,
}

/// Where a plot's parts are.
struct Frame {
    x: Scale,
    y: Scale,
}

impl Frame {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (self.column(x), self.row(y))
    }

    fn column(&self, x: f64) -> f64 {
        LEFT + self.x.place(x) * (WIDTH - LEFT - RIGHT)
    }

    fn row(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(y) * (HEIGHT - TOP - BOTTOM)
    }
}

impl Plot {
    /// The text of the file.
    pub fn to_svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let frame = Frame {
            x: Scale::around(points().map(|(x, _)| *x)),
            y: Scale::around(points().map(|(_, y)| *y).filter(|y| *y > 0.0)),
        };
        let legend = self.legend();
        let height = HEIGHT + LEGEND_ROW * legend.len().saturating_sub(1) as f64;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n<title>{}</title>\n\
             <style>{STYLE}</style>\n<rect class=\"b\" width=\"{WIDTH}\" height=\"{height}\" rx=\"6\"/>\n",
            escape(&self.title)
        );
        svg += &text(LEFT - 48.0, 30.0, "t", "start", &self.title);
        svg += &text(LEFT - 48.0, 54.0, "m", "start", &self.y);
        svg += &axes(&frame);
        svg += &text(f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - BOTTOM + 44.0, "m", "middle", &self.x);
        for series in &self.series {
            svg += &line(series, &frame);
        }
        for (row, entries) in legend.iter().enumerate() {
            let y = HEIGHT - 26.0 + LEGEND_ROW * row as f64;
            for (x, series) in entries {
                svg += &swatch(*x, y, series);
            }
        }
        svg + "</svg>\n"
    }

    /// The entries of the legend, each with its place, in as many rows as it takes.
    fn legend(&self) -> Vec<Vec<(f64, &Series)>> {
        let mut rows: Vec<Vec<(f64, &Series)>> = vec![Vec::new()];
        let mut x = LEFT;
        for series in &self.series {
            let width = 34.0 + LETTER * series.name.chars().count() as f64 + 18.0;
            if x + width > WIDTH && x > LEFT {
                rows.push(Vec::new());
                x = LEFT;
            }
            if let Some(row) = rows.last_mut() {
                row.push((x, series));
            }
            x += width;
        }
        rows
    }
}

fn axes(frame: &Frame) -> String {
    let (left, right, top, bottom) = (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM);
    let mut svg = String::new();
    for tick in frame.y.ticks() {
        let y = frame.row(tick);
        svg += &segment("g", left, y, right, y);
        svg += &text(left - 10.0, y + 4.5, "m", "end", &label(tick));
    }
    for tick in frame.x.ticks() {
        let x = frame.column(tick);
        svg += &segment("g", x, top, x, bottom);
        svg += &text(x, bottom + 20.0, "m", "middle", &label(tick));
    }
    svg + &segment("a", left, bottom, right, bottom)
}

/// A tick's number: a 1, 2 or 5 with zeros, so that nothing need be rounded.
fn label(tick: f64) -> String {
    if tick >= 1.0 || tick == 0.0 { grouped(tick) } else { format!("{:.6}", tick).trim_end_matches('0').to_owned() }
}

fn line(series: &Series, frame: &Frame) -> String {
    let places: Vec<(f64, f64)> = series.points.iter().map(|point| frame.at(*point)).collect();
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let mut svg = format!("<polyline class=\"{}\" points=\"{}\"/>\n", stroke(series.look), path.join(" "));
    for ((x, y), (value_x, value_y)) in places.iter().zip(&series.points) {
        let told = format!("{}: {} at {}", series.name, number(*value_y), number(*value_x));
        svg += &point(*x, *y, series.look, &told);
    }
    svg
}

fn swatch(x: f64, y: f64, series: &Series) -> String {
    let line = format!("<path class=\"{}\" d=\"M{x:.1} {y:.1}h28\"/>\n", stroke(series.look));
    line + &point(x + 14.0, y, series.look, &series.name) + &text(x + 34.0, y + 4.5, "", "start", &series.name)
}

fn stroke(look: usize) -> String {
    format!("l s{look}{}", if look == 2 { " d" } else { "" })
}

/// A point, in the shape of its series.
fn point(x: f64, y: f64, look: usize, told: &str) -> String {
    let r = POINT;
    let path = match look {
        0 => format!("M{:.1} {y:.1}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0z", x - r, d = 2.0 * r),
        1 => format!("M{:.1} {:.1}h{d}v{d}h-{d}z", x - r + 0.5, y - r + 0.5, d = 2.0 * r - 1.0),
        2 => format!("M{x:.1} {:.1}l{r} {r}l-{r} {r}l-{r} -{r}z", y - r),
        3 => format!("M{x:.1} {:.1}l{r} {d}h-{d2}z", y - r, d = 2.0 * r - 1.0, d2 = 2.0 * r),
        _ => format!("M{x:.1} {:.1}l{r} -{d}h-{d2}z", y + r, d = 2.0 * r - 1.0, d2 = 2.0 * r),
    };
    format!("<path class=\"p{look}\" d=\"{path}\"><title>{}</title></path>\n", escape(told))
}

fn segment(class: &str, x: f64, y: f64, to_x: f64, to_y: f64) -> String {
    format!("<line class=\"{class}\" x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{to_x:.1}\" y2=\"{to_y:.1}\"/>\n")
}

fn text(x: f64, y: f64, class: &str, anchor: &str, words: &str) -> String {
    format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>\n", escape(words))
}

fn escape(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, look: usize) -> Series {
        Series { name: name.to_owned(), look, points: vec![(1.0, 0.5), (10.0, 0.4), (100.0, 0.3)] }
    }

    fn plot(series: Vec<Series>) -> Plot {
        Plot { title: "a < b & \"c\"".to_owned(), x: "receivers".to_owned(), y: "µs".to_owned(), series }
    }

    #[test]
    fn a_plot_has_a_point_for_each_figure_and_no_text_that_breaks_it() {
        let svg = plot((0..5).map(|look| series("x<y", look)).collect()).to_svg();
        assert_eq!(svg.matches("<polyline").count(), 5);
        // Three on each line, and one in the legend.
        assert_eq!(svg.matches("<path class=\"p").count(), 5 * 4);
        assert!(svg.contains("<title>a &lt; b &amp; &quot;c&quot;</title>"));
        assert!(!svg.contains("x<y") && !svg.contains("NaN") && !svg.contains("inf"));
        assert!(svg.contains("prefers-color-scheme:dark"));
    }

    #[test]
    fn everything_stands_within_the_frame() {
        let plot = plot(vec![series("x", 0)]);
        let frame = Frame { x: Scale::around([1.0, 100.0]), y: Scale::around([0.5, 0.4, 0.3]) };
        for point in &plot.series[0].points {
            let (x, y) = frame.at(*point);
            assert!((LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y), "{x} {y}");
        }
        assert!(frame.row(0.5) < frame.row(0.3), "more is higher");
    }

    #[test]
    fn ticks_have_no_needless_zeros() {
        assert_eq!([0.0, 0.05, 0.2, 5.0, 1e6].map(label), ["0", "0.05", "0.2", "5", "1,000,000"]);
    }

    #[test]
    fn a_long_legend_takes_a_second_row() {
        let short = plot(vec![series("a", 0), series("b", 1)]);
        assert_eq!(short.legend().len(), 1);
        let long = plot((0..4).map(|look| series("a name of quite some length", look)).collect());
        assert!(long.legend().len() > 1);
        assert!(long.to_svg().contains(&format!("viewBox=\"0 0 {WIDTH} {}\"", HEIGHT + LEGEND_ROW)));
    }

    #[test]
    fn a_plot_of_nothing_is_still_one() {
        assert!(plot(Vec::new()).to_svg().ends_with("</svg>\n"));
    }
}
