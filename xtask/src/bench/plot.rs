//! A plot as an SVG file: both axes logarithmic, one line for each series.

use plotters::prelude::*;

use super::tables::{grouped, number};

const SIZE: (u32, u32) = (760, 430);

/// Colours that colour-blind readers can distinguish.
const COLOURS: [RGBColor; 4] =
    [RGBColor(9, 105, 218), RGBColor(188, 76, 0), RGBColor(110, 119, 129), RGBColor(26, 127, 55)];

/// The space above the largest value, as a factor, for the legend.
const ABOVE: f64 = 4.0;

/// One line of a plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub name: String,
    /// Ascending.
    pub points: Vec<(f64, f64)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    pub title: String,
    /// The varied quantity, with its unit.
    pub x: String,
    /// The measured quantity, with its unit.
    pub y: String,
    pub series: Vec<Series>,
}

impl Plot {
    /// Returns the text of the file. The value 0 of the x axis, which has no logarithm, is drawn at a tenth of the smallest other value.
    ///
    /// # Errors
    /// The plotting library failed.
    pub fn to_svg(&self) -> Result<String, String> {
        let mut svg = String::new();
        self.draw(&mut svg).map_err(|error| format!("the plot {:?} cannot be drawn: {error}", self.title))?;
        Ok(format!("{}\n", svg.trim_end()))
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let smallest = points().map(|(x, _)| *x).filter(|x| *x > 0.0).fold(f64::INFINITY, f64::min);
        let zero = if points().any(|(x, _)| *x == 0.0) { smallest / 10.0 } else { 0.0 };
        let (left, right) = span(points().map(|(x, _)| x.max(zero)));
        let (low, high) = span(points().map(|(_, y)| *y));
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, ("sans-serif", 18))
            .margin(14)
            .x_label_area_size(42)
            .y_label_area_size(64)
            .build_cartesian_2d((left..right).log_scale(), (low * 0.8..high * ABOVE).log_scale())?;
        let label = |x: &f64| if *x <= zero { "0".to_owned() } else { grouped(*x) };
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(&self.x).y_desc(&self.y).light_line_style(WHITE);
        mesh.x_label_formatter(&label).y_label_formatter(&|y| number(*y)).draw()?;
        for (series, colour) in self.series.iter().zip(COLOURS) {
            let line = series.points.iter().map(|(x, y)| (x.max(zero), *y));
            chart
                .draw_series(LineSeries::new(line, colour.stroke_width(2)).point_size(3))?
                .label(&series.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
        let mut legend = chart.configure_series_labels();
        legend.position(SeriesLabelPosition::UpperLeft).background_style(WHITE.mix(0.8)).draw()?;
        area.present()?;
        Ok(())
    }
}

/// Returns the range of an axis. The range is at least a factor of ten, because in a smaller range noise looks like growth.
fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, most) = values
        .filter(|value| *value > 0.0)
        .fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
    if most == 0.0 { (1.0, 10.0) } else { (least.min(most / 10.0), most) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: &[(f64, f64)]) -> Plot {
        let series = ["x<y", "z"].map(|name| Series { name: name.to_owned(), points: points.to_vec() });
        Plot { title: "a < b".to_owned(), x: "receivers".to_owned(), y: "µs".to_owned(), series: series.to_vec() }
    }

    #[test]
    fn a_plot_has_a_point_for_each_figure_and_escapes_text() {
        let svg = plot(&[(0.0, 0.5), (10.0, 0.4), (100.0, 0.3)]).to_svg().unwrap();
        assert_eq!(svg.matches("<circle").count(), 2 * 3, "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains("x&lt;y") && !svg.contains("x<y"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn a_plot_without_figures_is_valid() {
        assert!(plot(&[]).to_svg().unwrap().ends_with("</svg>\n"));
    }

    #[test]
    fn an_axis_spans_a_power_of_ten_at_least() {
        assert_eq!(span([0.9, 1.0].into_iter()), (0.1, 1.0));
        assert_eq!(span([1.0, 1_000.0, 0.0].into_iter()), (1.0, 1_000.0));
    }
}
