# The figure of the survey in docs/lab/survey.md, from survey-books.csv: gnuplot docs/lab/survey.gp > docs/images/survey.svg
# (in the project's folder). A line a seed.
set terminal svg size 960,560 font "sans-serif,14" background "white"
set datafile separator ","
set logscale xy 2
set xrange [120:4400]
set yrange [5:32]
set xtics (128, 256, 512, 1024, 2048, 4096)
set ytics (5, 6, 8, 10, 12, 16, 20, 24, 32)
set grid ytics lc rgb "#dddddd"
set border 3
set tics nomirror
set xlabel "window (bytes); trained on 128"
set ylabel "perplexity per byte"
set key outside right center noenhanced
file = "docs/lab/survey-books.csv"
at(m, v) = strcol(1) eq m && strcol(2) eq v
line(m, v) = sprintf("%s%s", m, v eq "" ? "" : " + dynamic NTK 4")
methods = "rope rope rope+pose rope+clex coca-slack coca-slack coca-slack+pose coca-slack+clex coca-strict-xpos coca-slack-alibi alibi coca-slack+longformer"
variants = "- ntk4 - - - ntk4 - - - - - -"
m(i) = word(methods, i)
v(i) = word(variants, i) eq "-" ? "" : word(variants, i)
colors = "#c03030 #c03030 #c03030 #c03030 #2050b0 #2050b0 #2050b0 #2050b0 #209050 #8040a0 #606060 #d08020"
dashes = "1 2 3 4 1 2 3 4 1 1 1 1"
do for [i = 1:words(methods)] { set style line i lw 2 pt i ps 0.7 dt int(word(dashes, i)) lc rgb word(colors, i) }
plot for [i = 1:words(methods)] file using (at(m(i), v(i)) ? $4 : NaN):5 with linespoints ls i title line(m(i), v(i))
