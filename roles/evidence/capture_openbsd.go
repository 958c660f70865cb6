package evidence

var layout = openbsdLayout
