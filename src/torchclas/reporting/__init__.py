"""What people look at: charts, contact sheets, and pages made from templates."""
