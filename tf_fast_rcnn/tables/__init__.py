"""The paper's comparisons (its tables 4 to 8 and figure 3), and some beyond it, on a data set of one's own."""
