"""The paper's comparisons (its tables 4 to 8 and figure 3), and a few more, on your own dataset."""
